import { mount } from 'svelte';
import App from './App.svelte';
import './theme.css';

const theme = localStorage.getItem('rehead.theme');
if (theme) document.documentElement.dataset.theme = theme;

const target = document.getElementById('app');
if (target) mount(App, { target });
